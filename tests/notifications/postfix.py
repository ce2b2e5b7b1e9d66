"""A real mail server for tests: Postfix with greylisting in front, Dovecot behind it, on ports of 127.0.0.1."""

import contextlib
import email
import email.policy
import fcntl
import imaplib
import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path

import pytest
from tests.notifications import certificates
from tests.postgres import free_port

USER, PASSWORD = "data@test.local", "stand-in-password-17"
_PROGRAMS = ("postfix", "dovecot", "postgrey")
_PACKAGES = ("postfix", "dovecot-imapd", "dovecot-lmtpd", "postgrey")

_DOVECOT = """
base_dir = {folder}/run
log_path = {folder}/dovecot.log
protocols = imap lmtp
listen = 127.0.0.1
ssl = yes
ssl_cert = <{folder}/server.pem
ssl_key = <{folder}/server.pem
mail_location = maildir:{folder}/mail/%u
mail_uid = dovecot
mail_gid = dovecot
first_valid_uid = 1
auth_mechanisms = plain login
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {folder}/users
}}
userdb {{
  driver = static
  args = uid=dovecot gid=dovecot home={folder}/mail/%u allow_all_users=yes
}}
service imap-login {{
  inet_listener imap {{
    port = 0
  }}
  inet_listener imaps {{
    port = {imaps}
    ssl = yes
  }}
}}
service lmtp {{
  unix_listener {folder}/spool/lmtp {{
    mode = 0666
  }}
}}
service auth {{
  unix_listener {folder}/spool/auth {{
    mode = 0666
  }}
}}
"""

_MAIN = """
compatibility_level = 3.6
queue_directory = {folder}/spool
data_directory = {folder}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = localhost
mydestination =
virtual_mailbox_domains = test.local
virtual_transport = lmtp:unix:{folder}/spool/lmtp
virtual_mailbox_maps = inline:{{ {{ data@test.local = ok }} }}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks =
alias_maps =
local_recipient_maps =
maillog_file = {folder}/postfix.log
maillog_file_prefixes = {folder}
smtpd_tls_chain_files = {folder}/key-first.pem
smtpd_sasl_type = dovecot
smtpd_sasl_path = {folder}/spool/auth
message_size_limit = 1048576
smtpd_relay_restrictions = permit_sasl_authenticated, reject_unauth_destination
"""

_MASTER = """
{inbound} inet n - n - - smtpd -o {{ smtpd_recipient_restrictions = \
reject_unlisted_recipient, check_policy_service inet:127.0.0.1:{grey}, permit }}
{submission} inet n - n - - smtpd -o smtpd_tls_security_level=encrypt -o smtpd_sasl_auth_enable=yes \
-o smtpd_recipient_restrictions=permit_sasl_authenticated,reject
{smtps} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes -o smtpd_sasl_auth_enable=yes \
-o smtpd_recipient_restrictions=permit_sasl_authenticated,reject
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
error unix - - n - - error
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
proxymap unix - - n - - proxymap
tlsmgr unix - - n 1000? 1 tlsmgr
retry unix - - n - - error
postlog unix-dgram n - n - 1 postlogd
"""


def needed() -> None:
    """Install what is needed, if it is missing and that can be done; else skip the test, but fail in CI."""
    if problem := _missing():
        if os.environ.get("CI"):
            pytest.fail(problem)
        pytest.skip(problem)


def _missing() -> str:
    """Return why there is no mail server here; empty if there is one, perhaps since a moment ago."""
    if os.geteuid() != 0:
        return "a mail server can be started by root alone"
    with Path(tempfile.gettempdir(), "flightlog-install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process of this test run may be at it
        if all(map(shutil.which, _PROGRAMS)):
            return ""
        if not shutil.which("apt-get"):
            return f"there is no mail server on this machine: install {' '.join(_PACKAGES)}"
        return _install()


def _install() -> str:
    """Install Debian's packages; return what went wrong, or nothing."""
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # Before Postfix asks what kind of machine this is: it is to set up and start nothing.
    answer = "postfix postfix/main_mailer_type select No configuration\n"
    install = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "install", "-y", "--no-install-recommends", *_PACKAGES]
    problem = ""
    for command, given in ((["debconf-set-selections"], answer), (["apt-get", "update"], ""), (install, "")):
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, env=quiet, timeout=500)
        problem = f"{' '.join(command)} failed: {done.stderr[-500:]}" if done.returncode else ""
    return problem


class RealMail:
    """Postfix, Dovecot and postgrey in a folder of their own.

    Attributes:
        inbound: the port where mail from other servers comes in: no login, greylisting.
        submission: the port for mail of one's own: STARTTLS and login.
        smtps: the same, encrypted from the first byte.
        ca: the authority to trust.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="flightlog-mail-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.ca, server = certificates.make(self.folder)
        pem = server.read_text()
        cut = pem.index("-----BEGIN PRIVATE KEY")
        (self.folder / "key-first.pem").write_text(pem[cut:] + pem[:cut])
        (self.folder / "key-first.pem").chmod(0o600)
        self.inbound, self.submission, self.smtps, self._imaps, self._grey = (free_port() for _ in range(5))
        self._processes: list[subprocess.Popen[bytes]] = []
        for name, owner in (("conf", None), ("spool", None), ("data", "postfix"), ("run", None), ("mail", "dovecot"),
                            ("grey", "postgrey")):  # fmt: skip
            (self.folder / name).mkdir()
            if owner:
                shutil.chown(self.folder / name, owner)
        ports = {"inbound": self.inbound, "submission": self.submission, "smtps": self.smtps, "imaps": self._imaps}
        facts = {"folder": self.folder, "grey": self._grey, **ports}
        for name, text in (("conf/dovecot.conf", _DOVECOT), ("conf/main.cf", _MAIN), ("conf/master.cf", _MASTER)):
            (self.folder / name).write_text(text.format(**facts).lstrip())
        (self.folder / "users").write_text(f"{USER}:{{PLAIN}}{PASSWORD}::::::\n")

    def start(self) -> None:
        """Start all three as children of this process, and wait until they greet."""
        nobody = "/dev/null"
        self._run("dovecot", "-F", "-c", str(self.folder / "conf/dovecot.conf"))
        self._run("postgrey", f"--inet=127.0.0.1:{self._grey}", "--delay=1", f"--dbdir={self.folder / 'grey'}",
                  f"--user={pwd.getpwnam('postgrey').pw_name}", f"--whitelist-clients={nobody}",
                  f"--whitelist-recipients={nobody}")  # fmt: skip
        self._run("postfix", "-c", str(self.folder / "conf"), "start-fg")
        for port in (self._grey, self._imaps, self.inbound):
            self._wait(port)

    def _run(self, *command: str) -> None:
        with (self.folder / "output.log").open("ab") as log:
            nothing = subprocess.DEVNULL
            process = subprocess.Popen(command, stdin=nothing, stdout=log, stderr=log, start_new_session=True)
            self._processes.append(process)

    def _wait(self, port: int) -> None:
        """Wait until somebody listens; and greets, where mail comes in."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                if port != self.inbound or connection.recv(3) == b"220":
                    return
            time.sleep(0.1)
        raise TimeoutError(self.logs())

    def logs(self) -> str:
        """Return what the servers said."""
        found = (self.folder / name for name in ("output.log", "postfix.log", "dovecot.log"))
        return "\n".join(path.read_text(errors="replace")[-3_000:] for path in found if path.exists())

    def stop(self) -> None:
        """Stop what was started and delete all that it had."""
        conf = self.folder / "conf"
        for command in (["postfix", "-c", str(conf), "stop"], ["doveadm", "-c", str(conf / "dovecot.conf"), "stop"]):
            subprocess.run(command, capture_output=True, check=False, timeout=60)
        for process in reversed(self._processes):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with contextlib.suppress(ProcessLookupError):  # whoever of its session is left
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)
        shutil.rmtree(self.folder, ignore_errors=True)

    def mails(self, *ids: str) -> list[EmailMessage]:
        """Return the mails of these ids, once they are in the mailbox: over IMAP, as a mail program would read it."""
        until = time.monotonic() + 30
        while time.monotonic() < until:
            found = {str(mail["Message-ID"]): mail for mail in self._read()}
            if set(ids) <= set(found):
                return [found[one] for one in ids]
            time.sleep(0.2)
        raise TimeoutError(f"only {sorted(found)} arrived\n{self.logs()}")

    def _read(self) -> list[EmailMessage]:
        context = ssl.create_default_context(cafile=self.ca)
        with imaplib.IMAP4_SSL("localhost", self._imaps, ssl_context=context, timeout=20) as box:
            box.login(USER, PASSWORD)
            box.select("INBOX", readonly=True)
            _, (numbers,) = box.search(None, "ALL")
            raw = [box.fetch(number.decode(), "(RFC822)")[1][0] for number in numbers.split()]
        return [email.message_from_bytes(one[1], policy=email.policy.default) for one in raw if isinstance(one, tuple)]


@contextmanager
def running() -> Iterator[RealMail]:
    """A mail server for as long as this is open."""
    needed()
    server = RealMail()
    try:
        server.start()
        yield server
    finally:
        server.stop()

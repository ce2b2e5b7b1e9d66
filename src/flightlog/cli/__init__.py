"""The command line: parse, ask the read side or the engine, print."""

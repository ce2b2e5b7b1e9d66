"""Transactions, under the names that users know: ``from flightlog.transactions import transaction``."""

from flightlog.engine.cache_policies import IsolationLevel
from flightlog.engine.transactions import (
    CommitMode,
    Transaction,
    TransactionState,
    get_transaction,
    transaction,
)

__all__ = ["CommitMode", "IsolationLevel", "Transaction", "TransactionState", "get_transaction", "transaction"]

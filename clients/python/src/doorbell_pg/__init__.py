"""Doorbell, a message broker inside PostgreSQL: publishing in anybody's transaction, and an asyncio consumer.

Needs a database to which `doorbell migrate` was applied. What consumes is in `consumer.py`, what publishes in
`publish.py`; both only call the functions of the schema, which are the same for all languages.
"""

from .consumer import Consumer
from .message import Message
from .outcome import Outcome, Reject, Retry, Settled, Snooze, Unavailable
from .publish import publish, publish_async

__all__ = ["Consumer", "Message", "Outcome", "Reject", "Retry", "Settled", "Snooze", "Unavailable"]
__all__ += ["publish", "publish_async"]

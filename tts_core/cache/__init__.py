"""What the permanent cache is made of above its store: the key of a request, and the layers of one worker.

key     what a take is kept under
memory  the takes a worker holds; folder: those on its disk
"""

from tts_core.cache.folder import FolderLayer
from tts_core.cache.kept import Kept
from tts_core.cache.key import Resolved
from tts_core.cache.memory import MemoryLayer, Size

__all__ = ["FolderLayer", "Kept", "MemoryLayer", "Resolved", "Size"]

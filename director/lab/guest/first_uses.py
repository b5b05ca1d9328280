"""What director's commands make of their own at the first use, made once here for all that the forker forks.

One rule: nothing is left of it but what is in memory: no file, no thread, no open descriptor.
"""

from director import journal
from director.core.config import parse_config

parse_config("virtual_servers: {}\n", "nowhere")  # pydantic builds the schema: 0.1-0.3 s in the user-mode kernel
journal._adapter()  # and a journal's, for every apply that changes something: 0.2-0.5 s

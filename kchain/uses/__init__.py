"""What uses a finished chain, in a notebook or here: judge it, export it, talk with it.

Travels into notebooks: imports nothing of kchain but `runtime`, `errors`, `units` and `pages`.
"""

import logging

# On a CPU it warns at its import about a kernel that nothing here needs.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

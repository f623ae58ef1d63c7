"""A finished chain that answers: loaded as it is exported, prompted as it was trained."""

import logging

# On a CPU it warns at its import about a kernel that nothing here needs.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

"""`python -m runtime`."""

import os
import sys

# A rank of the smoke test needs no command line for people, which costs 0.4 s of processor time to import.
if "RANK" in os.environ and sys.argv[1:2] == ["smoke"]:
    from runtime.smoke.collectives.worker import main as rank_main

    rank_main(sys.argv[2:], os.environ)
else:
    from runtime.cli import main

    main()

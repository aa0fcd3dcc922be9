"""`python -m theracast` is the command `theracast`."""

import sys

from theracast.main import main

sys.exit(main())

"""``python -m dbzero``."""

import sys

from dbzero.cli.main import main

sys.exit(main())

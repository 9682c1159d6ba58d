"""`python -m kernel_configs`: see cli.py."""

from kernel_configs.cli import main

raise SystemExit(main())

"""The subcommands of ``ndp`` that belong to training."""

"""The subcommands of ``ndp``, one module each; ``ndp_ros.cli`` has the table."""

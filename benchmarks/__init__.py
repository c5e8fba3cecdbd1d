"""What panda costs, measured: see README.md in this folder."""

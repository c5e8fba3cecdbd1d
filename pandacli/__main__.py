"""`python -m pandacli` is the command `panda`."""

from pandacli.cli import main

if __name__ == "__main__":
    main()

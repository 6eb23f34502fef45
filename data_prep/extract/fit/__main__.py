"""python -m data_prep.extract.fit: see command.py."""

from data_prep.extract.fit.command import main

if __name__ == "__main__":
    main()

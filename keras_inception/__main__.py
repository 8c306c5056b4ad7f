"""`python -m keras_inception`: the command line."""

from keras_inception.cli import main

if __name__ == "__main__":
    main()

"""The look of every picture: fonts, colours and sizes, and how a picture is written."""

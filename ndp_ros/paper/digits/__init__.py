"""Write digits (section 5.1): the data set, the networks that draw it and their training."""

"""A picture of a person that can be made to move: nothing is trained, everything comes from the picture and the prior."""

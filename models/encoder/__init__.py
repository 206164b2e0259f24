"""One picture in, a whole face code out: the encoder in MoFA's manner (Tewari et al. 2017), its decoder and its training data."""

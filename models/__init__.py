"""Everything with parameters: the face prior, rasterisers, portraits. Knows nothing of capture devices or the web page."""

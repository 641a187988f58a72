"""In which number types weights are kept and products are computed."""

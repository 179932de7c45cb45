"""Networks and filters applied to whole photos: tiling, devices, files, export."""

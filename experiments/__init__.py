"""The experiments of the paper and of this project; README.md lists them."""

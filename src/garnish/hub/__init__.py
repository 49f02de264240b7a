"""Bundles on the Hugging Face Hub: addresses, and downloading the files of one. Only what is asked for by `hub:`."""

"""Runs in the serving image: fetch the model named by the environment into /model, resuming what is there."""

import os

from huggingface_hub import snapshot_download

snapshot_download(os.environ["MODEL_ID"], revision=os.environ["MODEL_REVISION"], local_dir="/model")

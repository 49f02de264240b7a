"""Parts of annotation formats: values of their JSON, outlines, masks in PNG and in runs, names of pictures."""

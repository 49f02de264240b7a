"""The block loop: frozen trunk, adapters at their sites, their owners, and how a mixed batch is split into passes."""

"""One sandbox and its wire: the CNI's words, the plugin, the socket protocol, the kernel."""

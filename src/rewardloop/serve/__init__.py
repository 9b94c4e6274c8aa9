"""The gateway: all HTTP and WebSocket, accounts, limits, and the page. Never imports torch."""

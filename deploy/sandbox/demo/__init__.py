"""The story of a burst of tasks, played on the sandbox: `python -m deploy.sandbox.demo`."""

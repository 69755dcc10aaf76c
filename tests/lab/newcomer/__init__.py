"""The path of somebody who has just cloned the repository."""

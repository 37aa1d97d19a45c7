"""Sources to lakes: the command, the recipe and the jobs that join the stages up."""

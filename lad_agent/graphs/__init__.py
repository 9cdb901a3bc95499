"""The LangGraph workflow of one inspection, and the runner of many."""

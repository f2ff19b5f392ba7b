"""The chapter's pages and notebooks: code cells executed once, inserted into the prose of both languages."""

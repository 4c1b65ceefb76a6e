"""What tests share: real servers, sample events, projects on disk, and programs that tests run."""

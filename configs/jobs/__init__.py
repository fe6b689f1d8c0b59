"""A head as a job: stages, events, cancel and resume, worker processes; terminal, batch and page are its fronts."""

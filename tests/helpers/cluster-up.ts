/** Runs once before the test files; a placeholder until the shared PostgreSQL cluster is started here. */

export {}

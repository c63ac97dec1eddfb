/** Runs once after the test files; a placeholder until the shared PostgreSQL cluster is stopped here. */

export {}

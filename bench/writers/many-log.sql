insert into writers_log (election_id, committee_id, candidate_id, votes) select 1, 1 + g % 12, 2, 42 from generate_series(1, 1000) g;

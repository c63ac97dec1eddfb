\set committee random(1, 12)
insert into writers_log (election_id, committee_id, candidate_id, votes) values (1, :committee, 2, 42);

\set row random(1, 10000)
update writers_log set votes = votes + 1 where id = :row;

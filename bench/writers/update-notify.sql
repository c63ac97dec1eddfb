\set row random(1, 10000)
update writers_notify set votes = votes + 1 where id = :row;

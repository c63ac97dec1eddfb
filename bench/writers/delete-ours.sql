delete from writers_ours where id = (select nextval('writers_ours_next'));

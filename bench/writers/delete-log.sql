delete from writers_log where id = (select nextval('writers_log_next'));

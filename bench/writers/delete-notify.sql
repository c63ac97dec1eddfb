delete from writers_notify where id = (select nextval('writers_notify_next'));

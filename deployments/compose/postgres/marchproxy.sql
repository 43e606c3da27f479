-- The api's user owns its database, and nothing else.
CREATE ROLE marchproxy LOGIN;
CREATE DATABASE marchproxy OWNER marchproxy;

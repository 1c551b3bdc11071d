-- Columns and folds of a segment of some hundred samples lie in its row.
--
-- A large value is stored in chunks of two kilobytes, four to a page. What is left of it beyond the
-- last whole chunk takes the place of one, so that small values waste most of theirs: a third of what
-- segments took was such waste. In the row, two segments fill a page. They hardly ever change once
-- they are sealed, so that their pages need no room for updates either.
ALTER TABLE health_segments SET (toast_tuple_target = 4000, fillfactor = 100);

-- What ECMA 262 and PostgreSQL agree on is translated, the rest is refused: back-references and look-around, which
-- cannot be matched in one pass over the text, and repetitions of repetitions, which make the automaton explode. A
-- pattern is matched by the flush, for all tenants.
CREATE OR REPLACE FUNCTION eav.schema_pattern(p_pattern text)
RETURNS text
LANGUAGE plpgsql
IMMUTABLE
PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c_space CONSTANT text := '\u0009-\u000D\u0020\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000\uFEFF';
    -- The states that repetitions unfold to, all bounds of all nested groups multiplied.
    c_states CONSTANT bigint := 1000;
    v_out text := '';
    v_at integer := 1;
    v_char text;
    v_next text;
    v_bounds text[];
    v_size bigint := 1;
    v_atom bigint := 0; -- states of what a quantifier would repeat, 0: nothing to repeat
    v_open bigint[] := ARRAY[]::bigint[]; -- states before each group that is open
    v_class integer; -- where the class that is open began, to know its first character
BEGIN
    IF length(p_pattern) > 500 THEN
        RAISE invalid_parameter_value USING MESSAGE = 'a pattern has at most 500 characters';
    END IF;
    WHILE v_at <= length(p_pattern) LOOP
        v_char := substr(p_pattern, v_at, 1);
        v_next := substr(p_pattern, v_at + 1, 1);
        IF v_char = '\' THEN
            IF v_next ~ '[dws]' THEN
                v_char := CASE v_next WHEN 'd' THEN '0-9' WHEN 'w' THEN 'A-Za-z0-9_' ELSE c_space END;
                v_char := CASE WHEN v_class IS NULL THEN '[' || v_char || ']' ELSE v_char END;
                IF v_class IS NOT NULL
                    AND (substr(p_pattern, v_at + 2, 1) = '-' AND substr(p_pattern, v_at + 3, 1) <> ']'
                        OR (right(v_out, 1) = '-' AND right(v_out, 2) <> '\-' AND right(v_out, 2) <> '[-')) THEN
                    RAISE invalid_parameter_value USING MESSAGE = format('a range cannot end in \%s', v_next);
                END IF;
                v_at := v_at + 2;
            ELSIF v_next ~ '[DWS]' AND v_class IS NULL THEN
                v_char := '[^' || CASE v_next WHEN 'D' THEN '0-9' WHEN 'W' THEN 'A-Za-z0-9_' ELSE c_space END || ']';
                v_at := v_at + 2;
            ELSIF v_next ~ '[tnrfv]' THEN
                v_char := '\' || v_next;
                v_at := v_at + 2;
            ELSIF v_next = 'u' AND substr(p_pattern, v_at + 2, 4) ~ '^[0-9A-Fa-f]{4}$'
                AND substr(p_pattern, v_at + 2, 4) !~* '^(0000|d[89a-f])' THEN
                v_char := substr(p_pattern, v_at, 6);
                v_at := v_at + 6;
            ELSIF v_next ~ '[!-/:-@[-`{-~]' THEN
                v_char := '\' || v_next;
                v_at := v_at + 2;
            ELSE
                RAISE invalid_parameter_value USING MESSAGE = format('\%s is not allowed in a pattern', v_next);
            END IF;
            v_out := v_out || v_char;
            v_atom := CASE WHEN v_class IS NULL THEN 1 ELSE v_atom END;
        ELSIF v_class IS NOT NULL THEN
            v_at := v_at + 1;
            IF v_char = ']' AND v_at - 1 > v_class THEN
                v_class := NULL;
                v_atom := 1;
                v_out := v_out || v_char;
            ELSIF v_char = ']' THEN
                RAISE invalid_parameter_value USING MESSAGE = 'a class must not be empty';
            ELSE
                v_out := v_out || CASE WHEN v_char IN ('[', '&', '~', '.', ':', '=') THEN '\' || v_char ELSE v_char END;
            END IF;
        ELSIF v_char = '[' THEN
            v_at := v_at + 1 + (v_next = '^')::integer;
            v_out := v_out || CASE WHEN v_next = '^' THEN '[^' ELSE '[' END;
            v_class := v_at;
        ELSIF v_char = '(' THEN
            v_at := v_at + 1;
            IF v_next = '?' THEN
                IF substr(p_pattern, v_at + 1, 1) <> ':' THEN
                    RAISE invalid_parameter_value USING
                        MESSAGE = format('(?%s is not allowed in a pattern: groups are (…) or (?:…)', substr(p_pattern, v_at + 1, 1));
                END IF;
                v_at := v_at + 2;
            END IF;
            v_out := v_out || '(?:';
            v_open := v_open || v_size;
            v_size := 1;
            v_atom := 0;
        ELSIF v_char = ')' THEN
            IF cardinality(v_open) = 0 THEN
                RAISE invalid_parameter_value USING MESSAGE = 'a ) has no (';
            END IF;
            v_at := v_at + 1;
            v_out := v_out || ')';
            v_atom := v_size;
            v_size := v_open[cardinality(v_open)];
            v_open := trim_array(v_open, 1);
        ELSIF v_char IN ('*', '+', '?', '{') THEN
            v_bounds := CASE WHEN v_char = '{' THEN regexp_match(substr(p_pattern, v_at), '^\{(\d{1,4})(,?)(\d{0,4})\}') END;
            IF v_atom = 0 OR (v_char = '{' AND v_bounds IS NULL) THEN
                RAISE invalid_parameter_value USING MESSAGE = format('%s has nothing to repeat, or is no count', v_char);
            END IF;
            IF v_char = '{' THEN
                IF greatest(v_bounds[1]::integer, nullif(v_bounds[3], '')::integer) > 255
                    OR nullif(v_bounds[3], '')::integer < v_bounds[1]::integer
                    OR (v_bounds[2] = '' AND v_bounds[3] <> '') THEN
                    RAISE invalid_parameter_value USING MESSAGE = 'a count in a pattern is {n}, {n,} or {n,m} with n up to m, m up to 255';
                END IF;
                v_atom := v_atom * greatest(v_bounds[1]::bigint, nullif(v_bounds[3], '')::bigint, 1);
                v_char := format('{%s%s%s}', v_bounds[1], v_bounds[2], v_bounds[3]);
                v_at := v_at + strpos(substr(p_pattern, v_at), '}');
            ELSE
                v_at := v_at + 1;
            END IF;
            v_out := v_out || v_char;
            -- Lazy or not, it matches the same texts.
            v_at := v_at + (substr(p_pattern, v_at, 1) = '?')::integer;
            v_size := v_size + v_atom;
            v_atom := 0;
            CONTINUE;
        ELSIF v_char IN (']', '}') THEN
            RAISE invalid_parameter_value USING MESSAGE = format('%s must be written \%s', v_char, v_char);
        ELSE
            v_at := v_at + 1;
            v_atom := CASE WHEN v_char IN ('^', '$', '|') THEN 0 ELSE 1 END;
            v_out := v_out || CASE
                WHEN v_char = '.' THEN '[^\n\r\u2028\u2029]'
                WHEN v_char ~ '[\s!-#%-/:-@`~]' THEN '\' || v_char
                ELSE v_char
            END;
        END IF;
        v_size := v_size + 1;
        IF v_size > c_states OR v_atom > c_states THEN
            RAISE invalid_parameter_value USING MESSAGE = format('a pattern may unfold to at most %s states', c_states);
        END IF;
    END LOOP;
    IF v_class IS NOT NULL OR cardinality(v_open) > 0 THEN
        RAISE invalid_parameter_value USING MESSAGE = 'a ( or [ is not closed';
    END IF;
    IF v_size > c_states THEN
        RAISE invalid_parameter_value USING MESSAGE = format('a pattern may unfold to at most %s states', c_states);
    END IF;
    PERFORM '' ~ v_out; -- what is left: a range that runs backwards
    RETURN v_out;
END;
$$;

COMMENT ON FUNCTION eav.schema_pattern(text) IS
'A "pattern" of JSON Schema as a regular expression of PostgreSQL that matches the same texts; raises what is wrong with it.';

REVOKE ALL ON FUNCTION eav.schema_pattern(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION eav.schema_pattern(text) TO eav_app;

CREATE OR REPLACE FUNCTION eav.filter_condition(
    p_name text, p_data_type text, p_value text, p_indexed text, p_condition jsonb
)
RETURNS text
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c_operators CONSTANT text[] := ARRAY['eq', 'ne', 'in', 'gt', 'gte', 'lt', 'lte', 'exists'];
    v_operator text;
    v_operand jsonb;
    v_member jsonb;
    v_literals jsonb[];
    v_literal jsonb;
    v_terms text[] := ARRAY[]::text[];
BEGIN
    IF p_condition = '{}' THEN
        RAISE invalid_parameter_value USING MESSAGE = format('filter: %s: {} says nothing', p_name);
    END IF;
    FOR v_operator, v_operand IN
        SELECT o.key, o.value
        FROM jsonb_each(
            CASE WHEN jsonb_typeof(p_condition) = 'object' THEN p_condition ELSE jsonb_build_object('eq', p_condition) END
        ) AS o
    LOOP
        IF v_operator <> ALL(c_operators) THEN
            RAISE invalid_parameter_value USING
                MESSAGE = format('filter: %s: %s is no operator: %s', p_name, to_json(v_operator), array_to_string(c_operators, ', '));
        END IF;
        IF v_operator = 'exists' THEN
            IF jsonb_typeof(v_operand) <> 'boolean' THEN
                RAISE invalid_parameter_value USING MESSAGE = format('filter: %s: exists is true or false, got %s', p_name, left(v_operand::text, 100));
            END IF;
            v_terms := v_terms || format('%s IS %s', p_value, CASE WHEN v_operand::boolean THEN 'NOT NULL' ELSE 'NULL' END);
            CONTINUE;
        END IF;
        IF v_operator IN ('gt', 'gte', 'lt', 'lte') AND p_data_type = 'boolean' THEN
            RAISE invalid_parameter_value USING MESSAGE = format('filter: %s is boolean: it has no %s', p_name, v_operator);
        END IF;
        IF v_operator = 'in' AND jsonb_typeof(v_operand) <> 'array' THEN
            RAISE invalid_parameter_value USING MESSAGE = format('filter: %s: in takes an array, got %s', p_name, left(v_operand::text, 100));
        ELSIF v_operator = 'in' AND jsonb_array_length(v_operand) > 1000 THEN
            RAISE invalid_parameter_value USING MESSAGE = format('filter: %s: in takes at most 1000 values', p_name);
        END IF;
        v_literals := ARRAY[]::jsonb[];
        FOR v_member IN
            SELECT m.value
            FROM jsonb_array_elements(CASE WHEN v_operator = 'in' THEN v_operand ELSE jsonb_build_array(v_operand) END) AS m
        LOOP
            v_literal := CASE
                WHEN p_data_type IN ('number', 'integer') AND jsonb_typeof(v_member) = 'number'
                    OR p_data_type = 'boolean' AND jsonb_typeof(v_member) = 'boolean'
                    OR p_data_type = 'text' AND jsonb_typeof(v_member) = 'string' THEN v_member
                WHEN p_data_type = 'timestamp' AND jsonb_typeof(v_member) = 'string'
                    AND eav.try_timestamptz(v_member #>> '{}') IS NOT NULL
                    THEN eav.value_to_jsonb(NULL, NULL, NULL, eav.try_timestamptz(v_member #>> '{}'))
            END;
            IF v_literal IS NULL THEN
                RAISE invalid_parameter_value USING
                    MESSAGE = format('filter: %s is of type %s, got %s', p_name, p_data_type, left(v_member::text, 100));
            END IF;
            v_literals := v_literals || v_literal;
        END LOOP;
        IF v_literals = '{}' THEN
            v_terms := v_terms || 'false'::text;
        ELSIF v_operator IN ('eq', 'in') AND p_indexed IS NOT NULL THEN
            v_terms := v_terms || (
                SELECT '(' || string_agg(format('%s @> %L::jsonb', p_indexed, jsonb_build_object(p_name, l.literal)), ' OR ') || ')'
                FROM unnest(v_literals) AS l (literal)
            );
        ELSIF v_operator IN ('eq', 'in') THEN
            v_terms := v_terms || (
                SELECT format('%s = ANY(ARRAY[%s])', p_value, string_agg(format('%L::jsonb', l.literal), ', '))
                FROM unnest(v_literals) AS l (literal)
            );
        ELSIF v_operator = 'ne' THEN
            v_terms := v_terms || format('%s <> %L::jsonb', p_value, v_literals[1]);
        ELSE
            v_operator := CASE v_operator WHEN 'gt' THEN '>' WHEN 'gte' THEN '>=' WHEN 'lt' THEN '<' ELSE '<=' END;
            v_terms := v_terms || CASE
                WHEN p_data_type IN ('number', 'integer')
                    THEN format('(jsonb_typeof(%1$s) = ''number'' AND %1$s %2$s %3$L::jsonb)', p_value, v_operator, v_literals[1])
                -- by code point, whatever the collation of the database; times are written so that it is their order, too
                ELSE format('(%s #>> ''{}'') COLLATE "C" %s %L', p_value, v_operator, v_literals[1] #>> '{}')
            END;
        END IF;
    END LOOP;
    RETURN array_to_string(v_terms, ' AND ');
END;
$$;

COMMENT ON FUNCTION eav.filter_condition(text, text, text, text, jsonb) IS
'The condition of a filter on one attribute as SQL: p_value is the expression of its value as JSON, p_indexed the column that an index serves containment of.';

REVOKE ALL ON FUNCTION eav.filter_condition(text, text, text, text, jsonb) FROM PUBLIC;

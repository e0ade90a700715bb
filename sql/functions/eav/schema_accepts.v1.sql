-- lint: ignore-file plpgsql-check-performance: IMMUTABLE it is, try_timestamptz pins its time zone
CREATE OR REPLACE FUNCTION eav.schema_accepts(p_schema jsonb, p_value jsonb)
RETURNS boolean
LANGUAGE plpgsql
IMMUTABLE
PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_kind CONSTANT text := jsonb_typeof(p_value);
    v_text CONSTANT text := CASE WHEN v_kind = 'string' THEN p_value #>> '{}' END;
    v_number CONSTANT numeric := CASE WHEN v_kind = 'number' THEN p_value::numeric END;
    v_keyword text;
    v_rule jsonb;
    v_fits boolean;
BEGIN
    IF jsonb_typeof(p_schema) = 'boolean' THEN
        RETURN p_schema::boolean;
    END IF;
    FOR v_keyword, v_rule IN SELECT s.key, s.value FROM jsonb_each(p_schema) AS s LOOP
        IF v_keyword IN ('allOf', 'anyOf', 'oneOf') THEN
            SELECT CASE v_keyword
                WHEN 'allOf' THEN bool_and(s.fits)
                WHEN 'anyOf' THEN bool_or(s.fits)
                ELSE count(*) FILTER (WHERE s.fits) = 1
            END INTO v_fits
            FROM (SELECT eav.schema_accepts(e.schema, p_value) AS fits FROM jsonb_array_elements(v_rule) AS e (schema) OFFSET 0) AS s;
        ELSE
            -- Without a query in it PL/pgSQL evaluates it at a tenth of the price.
            v_fits := CASE v_keyword
                WHEN 'type' THEN v_rule @> to_jsonb(v_kind)
                    OR (v_rule @> '"integer"' AND v_kind = 'number' AND v_number = trunc(v_number))
                WHEN 'enum' THEN v_rule @> jsonb_build_array(p_value)
                WHEN 'const' THEN v_rule = p_value
                WHEN 'minimum' THEN v_number >= v_rule::numeric
                WHEN 'maximum' THEN v_number <= v_rule::numeric
                WHEN 'exclusiveMinimum' THEN v_number > v_rule::numeric
                WHEN 'exclusiveMaximum' THEN v_number < v_rule::numeric
                WHEN 'multipleOf' THEN v_number % v_rule::numeric = 0
                WHEN 'minLength' THEN length(v_text) >= v_rule::integer
                WHEN 'maxLength' THEN length(v_text) <= v_rule::integer
                WHEN 'pattern' THEN left(v_text, 4096) ~ (v_rule #>> '{}') AND length(v_text) <= 4096
                WHEN 'format' THEN CASE CASE WHEN v_text IS NOT NULL THEN v_rule #>> '{}' END
                    WHEN 'uuid' THEN v_text ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
                    WHEN 'ipv4' THEN v_text ~ '^((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(\.(?!$)|$)){4}$'
                    WHEN 'ipv6' THEN eav.is_ipv6(v_text)
                    WHEN 'date' THEN v_text ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}$' AND eav.try_timestamptz(v_text || 'T00:00:00Z') IS NOT NULL
                    WHEN 'date-time'
                        THEN v_text ~* '^[0-9]{4}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]+)?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$'
                        AND eav.try_timestamptz(left(v_text, 10) || 'T00:00:00Z') IS NOT NULL
                END
                WHEN 'not' THEN NOT eav.schema_accepts(v_rule, p_value)
                WHEN 'if' THEN eav.schema_accepts(
                    coalesce(p_schema -> CASE WHEN eav.schema_accepts(v_rule, p_value) THEN 'then' ELSE 'else' END, 'true'),
                    p_value
                )
            END;
        END IF;
        -- NULL: a rule for another type than the value's
        IF NOT v_fits THEN
            RETURN false;
        END IF;
    END LOOP;
    RETURN true;
END;
$$;

COMMENT ON FUNCTION eav.schema_accepts(jsonb, jsonb) IS
'Whether a scalar value fits a schema that eav.compile_schema made.';

REVOKE ALL ON FUNCTION eav.schema_accepts(jsonb, jsonb) FROM PUBLIC;

/** How pictures become the model's input, as `kofn run` has it by --scale, --mean and --std. */
import { perChannel, type ImageInput, type Preprocessing } from '../trial/image.js';

interface FormProps {
  readonly input: ImageInput;
  readonly options: Preprocessing;
  readonly onChange: (options: Preprocessing) => void;
}

export function PreprocessingForm({ input, options, onChange }: FormProps) {
  const isRaw = input.datatype === 'UINT8';
  const values = (name: 'mean' | 'std') => (event: Event & { currentTarget: HTMLInputElement }) => {
    const { currentTarget: field } = event;
    const given = perChannel(field.value, input.channels);
    const isRight = given !== undefined && !(name === 'std' && given.includes(0));
    field.setCustomValidity(
      isRight ? '' : `one number, or ${input.channels} with commas${name === 'std' ? '; not 0' : ''}`,
    );
    if (isRight) onChange({ ...options, [name]: given });
    else field.reportValidity();
  };
  const scale = (event: Event & { currentTarget: HTMLInputElement }) => {
    const { currentTarget: field } = event;
    const [over, under = '1', ...rest] = field.value.split('/');
    const given = Number(over) / Number(under);
    const isRight = Number.isFinite(given) && rest.length === 0 && over!.trim() !== '';
    field.setCustomValidity(isRight ? '' : 'a number, or a fraction like 1/255');
    if (isRight) onChange({ ...options, scale: given });
    else field.reportValidity();
  };
  return (
    <details>
      <summary>Preprocessing</summary>
      <div class="fields">
        {!isRaw && (
          <>
            <label>
              scale <input value="1/255" onChange={scale} />
            </label>
            <label>
              mean <input value="0" onChange={values('mean')} />
            </label>
            <label>
              std <input value="1" onChange={values('std')} />
            </label>
          </>
        )}
        <label>
          <input
            type="checkbox"
            checked={options.isInverted}
            onChange={event => onChange({ ...options, isInverted: event.currentTarget.checked })}
          />{' '}
          invert
        </label>
      </div>
    </details>
  );
}
